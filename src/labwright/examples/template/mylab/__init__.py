"""What mylab does by itself: `rules` say what should happen, `tasks` say how."""
