"""Several processes that train together: who records, and how what lies on several comes together."""
