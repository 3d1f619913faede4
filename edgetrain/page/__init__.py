"""Pages for a browser that need no network and run no script: their style, and an arena drawn."""
