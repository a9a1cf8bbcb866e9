"""Changes of an image before D sees it: augmentation, input noise, known corruptions."""
