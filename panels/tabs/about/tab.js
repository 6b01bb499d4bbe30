// A model card is written by others: whatever it may contain, nothing is loaded from another host for it.
const policy = document.createElement("meta");
policy.httpEquiv = "Content-Security-Policy";
policy.content = "img-src 'self' data: blob:; media-src 'self' data: blob:; frame-src 'self'; object-src 'none'";
document.head.append(policy);
