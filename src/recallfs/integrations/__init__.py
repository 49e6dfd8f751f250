"""What ties recallfs to other systems; each is loaded only by who asks for it by name."""
