"""The comparison that a user asks for, of a model and data of their own: a study made of a call."""
