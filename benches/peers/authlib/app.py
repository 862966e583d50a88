"""Authlib's token endpoint on granian, with one client and a new RSA-2048 key, at grantd's paths.

Without a framework: with Flask in front of the same grant it was half as slow again.
"""

import hmac
import json
from urllib.parse import parse_qsl

from authlib.oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, OAuth2Request, grants, list_to_scope, scope_to_list
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from joserfc.jwk import KeySet, RSAKey

ISSUER = "http://127.0.0.1"
KEYS = KeySet([RSAKey.generate_key(2048, {"alg": "RS256", "use": "sig"}, auto_kid=True)])
KEY_SET = json.dumps(KEYS.as_dict(private=False))


class Client(ClientMixin):
    """The demo client."""

    client_id = "demo-client"
    secret = b"demo-secret-for-local-use-only-0001"
    scopes = {"external-api"}

    def get_client_id(self):
        return self.client_id

    def get_allowed_scope(self, scope):
        return list_to_scope([name for name in scope_to_list(scope) if name in self.scopes])

    def check_client_secret(self, client_secret):
        return hmac.compare_digest(self.secret, client_secret.encode())

    def check_endpoint_auth_method(self, method, endpoint):
        return method == "client_secret_post"

    def check_grant_type(self, grant_type):
        return grant_type == "client_credentials"


class Request(OAuth2Request):
    """A form sent by POST."""

    def __init__(self, uri, form):
        super().__init__("POST", uri)
        self.payload = BasicOAuth2Payload(form)

    @property
    def form(self):
        return self.payload.data


class Grant(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_post"]


class Tokens(JWTBearerTokenGenerator):
    """RS256 access tokens as in RFC 9068."""

    def get_jwks(self):
        return KEYS


class Server(AuthorizationServer):
    clients = {Client.client_id: Client()}

    def query_client(self, client_id):
        return self.clients.get(client_id)

    def save_token(self, token, request):
        """Not stored: a verifier needs only the key."""

    def send_signal(self, name, *args, **kwargs):
        """No signals are used."""

    def create_oauth2_request(self, request):
        return request

    def handle_response(self, status, body, headers):
        return status, headers, json.dumps(body)


server = Server()
server.register_grant(Grant)
server.register_token_generator(
    "client_credentials",
    Tokens(ISSUER, expires_generator=lambda client, grant_type: 3600),
)


async def app(scope, protocol):
    """An RSGI application with the two paths."""
    if (scope.method, scope.path) == ("GET", "/.well-known/openid-configuration/jwks"):
        return protocol.response_str(200, [("content-type", "application/json")], KEY_SET)
    if (scope.method, scope.path) != ("POST", "/connect/token"):
        return protocol.response_empty(404, [])
    form = dict(parse_qsl((await protocol()).decode()))
    status, headers, body = server.create_token_response(Request(ISSUER + scope.path, form))
    protocol.response_str(status, list(headers), body)
