"""What a panel is made of: escaping by construction, numbers as people read them, charts, and the panel's shape."""
