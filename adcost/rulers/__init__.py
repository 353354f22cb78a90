"""How a number is taken: ``table`` lists the rulers, ``subject`` is what each is laid on."""
