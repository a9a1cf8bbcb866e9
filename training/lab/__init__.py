"""A live game in the browser: the steppers that train, drawn while they play."""
