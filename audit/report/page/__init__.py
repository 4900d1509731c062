"""``index.html``: its data, its words, what the first screen says, and its rendering."""
