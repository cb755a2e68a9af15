"""Keys of other Python jobs' objects, under the name that README gives them."""

from loaders.objects.idem_keys import gmail_idem_key, idem_key, stripe_idem_key

__all__ = ["gmail_idem_key", "idem_key", "stripe_idem_key"]
