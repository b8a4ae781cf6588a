"""What is asked: recipes, tricks, questions, and the files they are written in."""
