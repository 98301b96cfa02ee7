"""Output for people: tables, lines and progress bars."""
