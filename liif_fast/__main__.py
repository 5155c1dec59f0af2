"""``python -m liif_fast`` is the command ``liif-fast``."""

from .cli import main

if __name__ == "__main__":
    main()
