"""Play members and servers that mean harm; each test asserts a bound on what they can cost."""
