//! Runs the example that embeds the server.

#[path = "../../examples/embed.rs"]
mod example;

#[test]
fn the_example_gets_a_token_without_a_socket_and_over_one() {
    example::main().expect("two tokens");
}
