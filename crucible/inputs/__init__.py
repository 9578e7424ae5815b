"""What a training needs: its configuration, text, a tokenizer, and the mask of dead tokens."""
