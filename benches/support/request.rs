//! The measured request: a token for the demo client in both encodings, as curl sends it.

/// A body and its content type.
pub(crate) struct Payload {
    pub(crate) name: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) body: &'static str,
}

pub(crate) const URLENCODED: Payload = Payload {
    name: "urlencoded",
    content_type: "application/x-www-form-urlencoded",
    body: "client_id=demo-client&client_secret=demo-secret-for-local-use-only-0001\
           &grant_type=client_credentials&scope=external-api",
};

pub(crate) const MULTIPART: Payload = Payload {
    name: "multipart",
    content_type: "multipart/form-data; boundary=------------------------d74496d66958873e",
    body: "--------------------------d74496d66958873e\r\n\
           Content-Disposition: form-data; name=\"client_id\"\r\n\r\n\
           demo-client\r\n\
           --------------------------d74496d66958873e\r\n\
           Content-Disposition: form-data; name=\"client_secret\"\r\n\r\n\
           demo-secret-for-local-use-only-0001\r\n\
           --------------------------d74496d66958873e\r\n\
           Content-Disposition: form-data; name=\"grant_type\"\r\n\r\n\
           client_credentials\r\n\
           --------------------------d74496d66958873e\r\n\
           Content-Disposition: form-data; name=\"scope\"\r\n\r\n\
           external-api\r\n\
           --------------------------d74496d66958873e--\r\n",
};
