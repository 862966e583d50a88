import java.nio.charset.StandardCharsets;
import java.util.List;
import org.apache.hc.client5.http.classic.methods.HttpGet;
import org.apache.hc.client5.http.classic.methods.HttpPost;
import org.apache.hc.client5.http.entity.UrlEncodedFormEntity;
import org.apache.hc.client5.http.entity.mime.MultipartEntityBuilder;
import org.apache.hc.client5.http.impl.classic.CloseableHttpClient;
import org.apache.hc.client5.http.impl.classic.HttpClients;
import org.apache.hc.core5.http.ClassicHttpRequest;
import org.apache.hc.core5.http.ContentType;
import org.apache.hc.core5.http.NameValuePair;
import org.apache.hc.core5.http.io.entity.EntityUtils;
import org.apache.hc.core5.http.io.entity.StringEntity;
import org.apache.hc.core5.http.message.BasicNameValuePair;

/** Asks for tokens as Apache HttpClient 5 does by default; prints each answer's status. */
class HttpClient5 {
    static CloseableHttpClient client;

    public static void main(String[] arguments) throws Exception {
        String base = arguments[0], id = arguments[1], secret = arguments[2];
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
            post.setEntity(new UrlEncodedFormEntity(form, StandardCharsets.UTF_8));
            ask(post);
            // Each part says text/plain; charset=ISO-8859-1.
            var parts = MultipartEntityBuilder.create();
            form.forEach(field -> parts.addTextBody(field.getName(), field.getValue()));
            post.setEntity(parts.build());
            ask(post);
            var labelled = MultipartEntityBuilder.create().setCharset(StandardCharsets.ISO_8859_1);
            form.forEach(field -> labelled.addTextBody(field.getName(), field.getValue()));
            post.setEntity(labelled.build());
            ask(post);
            var json = "{\"grant_type\":\"client_credentials\",\"scope\":\"all\",\"client_id\":\"" + id
                + "\",\"client_secret\":\"" + secret + "\"}";
            var vision = new HttpPost(base + "/v1/api/oauth/token");
            vision.setEntity(new StringEntity(json, ContentType.APPLICATION_JSON));
            ask(vision);
            var basic = java.util.Base64.getEncoder().encodeToString((id + ":" + secret).getBytes());
            var get = new HttpGet(base + "/v1/getAccessToken?scope=all");
            get.setHeader("Content-Type", ContentType.create("application/json", "ISO-8859-1").toString());
            get.setHeader("Authorization", "Basic " + basic);
            ask(get);
        }
    }

    static void ask(ClassicHttpRequest request) throws Exception {
        client.execute(request, answer -> {
            EntityUtils.consume(answer.getEntity());
            System.out.println(answer.getCode());
            return null;
        });
    }
}
