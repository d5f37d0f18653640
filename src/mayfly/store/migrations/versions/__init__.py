"""How the schema came to be, one step each; a step that was released is never changed."""
