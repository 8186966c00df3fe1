"""Products, and searches over them."""

import json

from django.db import connection, models

# An answer has the key as text: cast it to the key's own type for a join with the source.
SEARCH = """
    select p.*, q.score
      from embedd.query('products', %s, %s, %s, "offset" => %s) q
      join shop_product p on p.id = q.id::bigint
     order by q.score desc"""
SIMILAR = """
    select p.*, q.score
      from embedd.similar('products', %s::text, %s) q
      join shop_product p on p.id = q.id::bigint
     order by q.score desc"""
BY_PRICE = """
    select p.*
      from embedd.query('products', "limit" => %s, order_by => 'price', after => %s) q
      join shop_product p on p.id = q.id::bigint
     order by p.price, p.id"""


class Products(models.Manager):
    def search(self, text, limit=2, filters=None, offset=0):
        """The products nearest in meaning to a text, each with its score."""
        return self.raw(SEARCH, [text, limit, json.dumps(filters or {}), offset])

    def similar(self, product, limit=2):
        """The products like another one."""
        return self.raw(SIMILAR, [str(product.pk), limit])

    def by_price(self, limit=2, after=None):
        """A page of all products in the order of their price."""
        after = after and json.dumps([str(after.price), str(after.pk)])
        return self.raw(BY_PRICE, [limit, after])


class Product(models.Model):
    name = models.TextField()
    description = models.TextField()
    category = models.TextField()
    price = models.DecimalField(max_digits=10, decimal_places=2)

    objects = Products()


def wait_until_synced():
    """Waits until the committed changes are in the vectors. An application needs no wait, its tests do."""
    with connection.cursor() as cursor:
        cursor.execute("select embedd.wait_until_synced('products', '1 min')")
