"""The waist: teachers label, mix and pool on its left, students learn on its right."""
