"""django-oscar with the API of django-oscar-api, both as they come, behind a token and with pages."""

import os

from oscar.defaults import *  # noqa: F403 - as oscar's documentation has it

DEBUG = False
SECRET_KEY = "a shop on this machine, for tests"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "urls"
USE_TZ = True
TIME_ZONE = "UTC"
SITE_ID = 1
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SHOP_DATABASE"]}}
HAYSTACK_CONNECTIONS = {"default": {"ENGINE": "haystack.backends.simple_backend.SimpleEngine"}}

INSTALLED_APPS = """
    django.contrib.auth django.contrib.contenttypes django.contrib.flatpages django.contrib.messages
    django.contrib.sessions django.contrib.sites django.contrib.staticfiles
    oscar.config.Shop
    oscar.apps.address.apps.AddressConfig oscar.apps.analytics.apps.AnalyticsConfig
    oscar.apps.basket.apps.BasketConfig oscar.apps.catalogue.apps.CatalogueConfig
    oscar.apps.catalogue.reviews.apps.CatalogueReviewsConfig oscar.apps.checkout.apps.CheckoutConfig
    oscar.apps.communication.apps.CommunicationConfig oscar.apps.customer.apps.CustomerConfig
    oscar.apps.dashboard.apps.DashboardConfig oscar.apps.offer.apps.OfferConfig oscar.apps.order.apps.OrderConfig
    oscar.apps.partner.apps.PartnerConfig oscar.apps.payment.apps.PaymentConfig oscar.apps.search.apps.SearchConfig
    oscar.apps.shipping.apps.ShippingConfig oscar.apps.voucher.apps.VoucherConfig
    oscar.apps.wishlists.apps.WishlistsConfig
    oscar.apps.dashboard.catalogue.apps.CatalogueDashboardConfig
    oscar.apps.dashboard.communications.apps.CommunicationsDashboardConfig
    oscar.apps.dashboard.offers.apps.OffersDashboardConfig oscar.apps.dashboard.orders.apps.OrdersDashboardConfig
    oscar.apps.dashboard.pages.apps.PagesDashboardConfig oscar.apps.dashboard.partners.apps.PartnersDashboardConfig
    oscar.apps.dashboard.ranges.apps.RangesDashboardConfig oscar.apps.dashboard.reports.apps.ReportsDashboardConfig
    oscar.apps.dashboard.reviews.apps.ReviewsDashboardConfig
    oscar.apps.dashboard.shipping.apps.ShippingDashboardConfig oscar.apps.dashboard.users.apps.UsersDashboardConfig
    oscar.apps.dashboard.vouchers.apps.VouchersDashboardConfig
    haystack treebeard rest_framework rest_framework.authtoken oscarapi
""".split()

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.LimitOffsetPagination",
    "PAGE_SIZE": 20,
}
OSCARAPI_BLOCK_ADMIN_API_ACCESS = False  # the products with their stock records are its list for staff
