"""What a contract could say of data that are there: guesses, each told as one, none a promise yet."""

from boucle.product.infer.guess import Guess, Inferred, infer

__all__ = ["Guess", "Inferred", "infer"]
