"""Does an image classifier look at the object or at the background?"""

__version__ = "0.1.0"
