"""Make the shop's database and fill it, the same every time: `python seed.py TOKEN`, settings in the environment.

300 products: 240 that stand alone, and 20 parents with two children each; two partners, of whom each fifth product
that can be sold has a stock record of both. Some lack a UPC, a price or a stock level, and 3 have a price below zero.
"""

import random
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import django

django.setup()

from django.contrib.auth import get_user_model  # noqa: E402 - Django's models come after its setup
from django.core.management import call_command  # noqa: E402
from django.db import transaction  # noqa: E402
from django.utils.text import slugify  # noqa: E402
from oscar.apps.catalogue.categories import create_from_breadcrumbs  # noqa: E402
from oscar.apps.catalogue.models import Product, ProductAttribute, ProductClass  # noqa: E402
from oscar.apps.partner.models import Partner, StockRecord  # noqa: E402
from rest_framework.authtoken.models import Token  # noqa: E402

OPENED = datetime(2025, 1, 1, 8, tzinfo=UTC)
CATEGORIES = [
    "Clothing > Jackets",
    "Clothing > Shirts",
    "Clothing > Größe XL & mehr",
    "Outdoor > Tents",
    "Outdoor > Stoves",
    "Books",
]
NAMES = ["Anorak", "Überwurf", "Ridge tent", "Alcohol stove", "Field guide", "Chemise d'été", "Fleece", "登山靴"]
MAKERS = ["Nordhang", "Ochre & Co", "Vela", "Pieneer"]


def fill(token: str) -> None:
    """Everything in the shop; `token` is the one of its staff."""
    draw = random.Random(2025)  # noqa: S311 - made-up goods
    staff = get_user_model().objects.create_superuser("staff", "staff@example.com", "not used")
    Token.objects.create(user=staff, key=token)
    categories = [create_from_breadcrumbs(path) for path in CATEGORIES]
    goods = ProductClass.objects.create(name="Goods")
    for code, kind in (("maker", ProductAttribute.TEXT), ("weight", ProductAttribute.FLOAT)):
        ProductAttribute.objects.create(product_class=goods, code=code, name=code.title(), type=kind)
    partners = [Partner.objects.create(name=name) for name in ("Warehouse north", "Drop shipper")]

    number = 0

    def product(structure: str, parent: Product | None = None) -> Product:
        nonlocal number
        number += 1
        title = "" if parent else f"{NAMES[number % len(NAMES)]} {number}"
        made = Product.objects.create(
            structure=structure,
            parent=parent,
            product_class=None if parent else goods,
            title=title,
            slug=slugify(title) or f"product-{number}",
            upc=None if number % 40 == 0 else f"978{number:09d}",
            description="" if number % 7 else f"<p>{title}: good for years.</p>\n<p>“Really.”</p>",
        )
        if parent is None:
            made.categories.add(*draw.sample(categories, 1 + number % 2))
        made.attr.maker = draw.choice(MAKERS)
        if number % 3:
            made.attr.weight = draw.randrange(50, 5000) / 1000
        made.attr.save()
        created = OPENED + timedelta(hours=number)
        changed = created + timedelta(seconds=draw.randrange(10_000_000), milliseconds=draw.randrange(1000))
        Product.objects.filter(pk=made.pk).update(date_created=created, date_updated=changed)  # past auto_now
        return made

    def stock(goods: Product) -> None:
        price = Decimal(draw.randrange(100, 100_000)) / 100
        for partner in partners[: 2 if number % 5 == 0 else 1]:
            record = StockRecord.objects.create(
                product=goods,
                partner=partner,
                partner_sku=f"{partner.code}-{number:04d}",
                price=Decimal("-1.00") if number % 99 == 0 else None if number % 50 == 0 else price,
                price_currency="EUR",
                num_in_stock=None if number % 20 == 0 else draw.randrange(500),
            )
            at = OPENED + timedelta(hours=number)
            StockRecord.objects.filter(pk=record.pk).update(date_created=at, date_updated=at)

    for _ in range(240):
        stock(product(Product.STANDALONE))
    for _ in range(20):
        parent = product(Product.PARENT)
        for _ in range(2):
            stock(product(Product.CHILD, parent))


call_command("migrate", verbosity=0)
with transaction.atomic():
    fill(sys.argv[1])
