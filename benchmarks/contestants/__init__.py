"""One module for each client library, with one function for each action: `publish receive pace watch signup recover online`.

Each takes a `Work` and returns a JSON object; what is compared is timed inside, after connecting.
Only the library under test is imported in its process.
"""
