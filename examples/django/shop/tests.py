"""Tests of the search: one that commits, and one that rolls back."""

from django.test import TestCase, TransactionTestCase

from shop.models import Product, wait_until_synced


class Committed(TransactionTestCase):
    """Workers see what is committed, so a test of answers commits; Django truncates the tables after it."""

    def test_answers_follow_changes(self):
        boots = Product.objects.create(name="Trail boots", description="For long walks", category="shoes", price="139")
        Product.objects.create(name="Gas stove", description="Boils water", category="camping", price="45.50")
        wait_until_synced()
        self.assertEqual([p.name for p in Product.objects.search("hiking shoes", limit=1)], ["Trail boots"])
        boots.delete()
        wait_until_synced()
        self.assertEqual([p.name for p in Product.objects.search("hiking shoes", limit=1)], ["Gas stove"])


class RolledBack(TestCase):
    """The rows are committed once for the class; what a test changes in them is rolled back after it."""

    @classmethod
    def setUpClass(cls):
        cls.boots = Product.objects.create(name="Trail boots", description="For long walks", category="shoes", price="139")
        wait_until_synced()
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.boots.delete()

    def test_the_join_shows_the_rows_of_the_transaction(self):
        Product.objects.update(price=1)
        (found,) = Product.objects.search("hiking shoes", limit=1)
        self.assertEqual(found.price, 1)

    def test_the_rows_are_as_they_were(self):
        (found,) = Product.objects.search("hiking shoes", limit=1)
        self.assertEqual(found.price, 139)
