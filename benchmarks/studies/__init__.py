"""One file a question, found by being here; ``adcost.suite.vocabulary`` says what a study is made of."""
