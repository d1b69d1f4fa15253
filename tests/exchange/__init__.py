"""A simulated venue: a seeded matching engine behind the real protocols of Binance, Kraken and Coinbase."""
