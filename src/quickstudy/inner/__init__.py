"""How one task is learnt, in reusable steps: per-task application, descent, closed forms."""
