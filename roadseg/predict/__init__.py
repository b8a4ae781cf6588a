"""Weights to masks: pictures, folders and videos; export; scores on any prepared data."""
