"""Use the library inside web frameworks. Each module loads its framework, and this one none.

====== ===================================================================================
flask  for Flask
django for Django
====== ===================================================================================
"""
