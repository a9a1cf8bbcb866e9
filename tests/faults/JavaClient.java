import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.List;

/** Asks a server for images with the JDK's own client, as it comes and with HTTP/1.1 alone. */
public class JavaClient {
  public static void main(String[] arguments) throws Exception {
    URI url = URI.create(arguments[0] + "/v1/generate");
    String body = "{\"model\": \"grey\", \"seeds\": [5]}";
    HttpRequest plain =
        HttpRequest.newBuilder(url).POST(HttpRequest.BodyPublishers.ofString(body)).build();
    HttpRequest chunked =
        HttpRequest.newBuilder(url)
            .POST(
                HttpRequest.BodyPublishers.fromPublisher(
                    HttpRequest.BodyPublishers.ofString(body)))
            .build();
    HttpRequest expecting =
        HttpRequest.newBuilder(url)
            .expectContinue(true)
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
    for (HttpClient.Version version : List.of(HttpClient.Version.HTTP_2, HttpClient.Version.HTTP_1_1)) {
      HttpClient client = HttpClient.newBuilder().version(version).build();
      for (HttpRequest request : List.of(plain, chunked, expecting, plain)) {
        HttpResponse<byte[]> response =
            client.send(request, HttpResponse.BodyHandlers.ofByteArray());
        System.out.println(
            version
                + " "
                + response.statusCode()
                + " "
                + response.headers().firstValue("content-type").orElse("none")
                + " "
                + response.version());
      }
    }
  }
}
