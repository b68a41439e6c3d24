"""Pictures of a plan: in the terminal, as SVG and PNG."""
