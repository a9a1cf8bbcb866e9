"""What a model is: latents, bundles, repositories and networks.

Knows neither training nor serving.
"""
