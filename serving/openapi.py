"""openapi.json: every route, made from the schemas that the routes themselves use."""
