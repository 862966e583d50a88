import java.util.List;
import org.apache.http.NameValuePair;
import org.apache.http.auth.AuthScope;
import org.apache.http.auth.UsernamePasswordCredentials;
import org.apache.http.client.config.RequestConfig;
import org.apache.http.client.entity.UrlEncodedFormEntity;
import org.apache.http.client.methods.HttpEntityEnclosingRequestBase;
import org.apache.http.client.methods.HttpPost;
import org.apache.http.client.methods.HttpUriRequest;
import org.apache.http.client.methods.RequestBuilder;
import org.apache.http.entity.ContentType;
import org.apache.http.entity.StringEntity;
import org.apache.http.impl.client.BasicCredentialsProvider;
import org.apache.http.impl.client.CloseableHttpClient;
import org.apache.http.impl.client.HttpClients;
import org.apache.http.message.BasicNameValuePair;
import org.apache.http.util.EntityUtils;

/** Asks for tokens as Apache HttpClient 4.5 does by default; prints each answer's status. */
class HttpClient4 {
    static CloseableHttpClient client;

    public static void main(String[] arguments) throws Exception {
        String base = arguments[0], id = arguments[1], secret = arguments[2];
        var expects = RequestConfig.custom().setExpectContinueEnabled(true).build();
        try (var http = HttpClients.createDefault()) {
            client = http;
            List<NameValuePair> form = List.of(
                new BasicNameValuePair("grant_type", "client_credentials"),
                new BasicNameValuePair("scope", "all"),
                new BasicNameValuePair("client_id", id),
                new BasicNameValuePair("client_secret", secret));
            var post = new HttpPost(base + "/connect/token");
            post.setEntity(new UrlEncodedFormEntity(form));
            ask(post);
            post.setConfig(expects);
            ask(post);
            var json = "{\"grant_type\":\"client_credentials\",\"scope\":\"all\",\"client_id\":\"" + id
                + "\",\"client_secret\":\"" + secret + "\"}";
            var vision = new HttpPost(base + "/v1/api/oauth/token");
            vision.setEntity(new StringEntity(json, ContentType.APPLICATION_JSON));
            ask(vision);
            vision.setEntity(new StringEntity(json, ContentType.create("application/json", "ISO-8859-1")));
            ask(vision);
        }
        // The library sends credentials only after the challenge of a 401.
        var credentials = new BasicCredentialsProvider();
        credentials.setCredentials(AuthScope.ANY, new UsernamePasswordCredentials(id, secret));
        var basic = java.util.Base64.getEncoder().encodeToString((id + ":" + secret).getBytes());
        try (var http = HttpClients.custom().setDefaultCredentialsProvider(credentials).build()) {
            client = http;
            ask(RequestBuilder.get(base + "/v1/getAccessToken?scope=all")
                .setHeader("Content-Type", ContentType.create("application/json", "ISO-8859-1").toString())
                .setHeader("Authorization", "Basic " + basic).build());
        }
    }

    static void ask(HttpUriRequest request) throws Exception {
        try (var answer = client.execute(request)) {
            EntityUtils.consume(answer.getEntity());
            System.out.println(answer.getStatusLine().getStatusCode());
        }
    }
}
