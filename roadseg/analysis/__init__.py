"""From runs to tables."""
