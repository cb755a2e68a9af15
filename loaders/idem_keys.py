"""Keys of other Python jobs' objects, under the name that README gives them."""

from loaders.objects.idem_keys import IdemKeyFunction, gmail_idem_key, idem_key, stripe_idem_key

__all__ = ["IdemKeyFunction", "gmail_idem_key", "idem_key", "stripe_idem_key"]
