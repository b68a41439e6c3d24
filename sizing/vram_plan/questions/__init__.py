"""Questions over many plans: a table, a comparison, a recommendation, what runs on a card, a sweep."""
