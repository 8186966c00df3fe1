"""Searches products with Django; `manage.py migrate` has created the tables."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django.setup()

from django.db import transaction  # noqa: E402
from shop.models import Product, wait_until_synced  # noqa: E402

PRODUCTS = [
    ("Fleece jacket", "Light and warm, dries fast after rain", "clothing", "89.90"),
    ("Down sleeping bag", "Keeps you warm down to -5 degrees", "camping", "249.00"),
    ("Trail boots", "Waterproof boots for long walks in the hills", "shoes", "139.00"),
    ("Wool hat", "Thin enough to wear under a hood", "clothing", "25.00"),
    ("Gas stove", "Boils a litre of water in four minutes", "camping", "45.50"),
    ("Rain trousers", "Waterproof, to wear over others on long walks", "clothing", "59.00"),
]


def show(title, products):
    print(f"{title}: " + ", ".join(f"{product.name} ({product.price})" for product in products))


def main():
    for name, description, category, price in PRODUCTS:
        Product.objects.create(name=name, description=description, category=category, price=price)
    wait_until_synced()
    show("warm for hiking", Product.objects.search("something warm for hiking"))
    show("the next page", Product.objects.search("something warm for hiking", offset=2))
    show("like the trail boots", Product.objects.similar(Product.objects.get(name="Trail boots")))
    page = list(Product.objects.by_price())
    show("by price", page)
    show("by price, the next page", Product.objects.by_price(after=page[-1]))
    # A test can change rows and roll back: the join shows the rows of its own transaction. Vectors follow at commit only.
    with transaction.atomic():
        Product.objects.filter(name="Fleece jacket").update(price="1.00")
        show("in a transaction that rolls back", Product.objects.search("warm jacket", limit=1))
        transaction.set_rollback(True)


if __name__ == "__main__":
    main()
