"""What a panel is made of: escaping by construction, words and numbers as people read them, charts, and the panel's shape."""
