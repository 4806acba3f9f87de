#include "ndpipe/rpc/security.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <charconv>
#include <cstring>

namespace ndpipe::rpc {
namespace {

bool IsLoopback(const std::string& host) {
  if (host == "localhost") return true;
  in_addr v4{};
  if (::inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  return ::inet_pton(AF_INET6, host.c_str(), &v6) == 1 &&
         std::memcmp(&v6, &in6addr_loopback, sizeof(v6)) == 0;
}

std::unexpected<Error> BadAddress(const std::string& text, std::string_view reason) {
  return Fail(
      ErrorCode::kInvalidArgument,
      fmt::format("\"{}\" is no address: {}; write HOST, HOST:PORT or [V6]:PORT", text, reason));
}

}  // namespace

std::string Address::Text() const {
  const bool is_v6 = host.find(':') != std::string::npos;
  return is_v6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

Result<Address> ParseAddress(const std::string& text, int default_port) {
  Address address{.host = text, .port = default_port};
  std::string port;
  bool has_port = false;
  if (text.starts_with('[')) {
    const size_t close = text.find(']');
    if (close == std::string::npos) return BadAddress(text, "the ] is missing");
    address.host = text.substr(1, close - 1);
    in6_addr v6{};
    if (::inet_pton(AF_INET6, address.host.c_str(), &v6) != 1) {
      return BadAddress(text, "what is in brackets is no IPv6 address");
    }
    const std::string rest = text.substr(close + 1);
    if (!rest.empty() && rest[0] != ':') return BadAddress(text, "a colon must follow the ]");
    has_port = !rest.empty();
    if (has_port) port = rest.substr(1);
  } else if (const size_t colon = text.find(':'); colon != std::string::npos) {
    if (text.find(':', colon + 1) != std::string::npos) {
      return BadAddress(text, "an IPv6 address needs brackets");
    }
    address.host = text.substr(0, colon);
    port = text.substr(colon + 1);
    has_port = true;
  }
  if (address.host.empty()) return BadAddress(text, "the host is missing");
  if (address.host.size() > 253) return BadAddress(text.substr(0, 64), "the host is too long");
  for (const char c : address.host) {
    const bool fits = std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' ||
                      c == '_' || (c == ':' && text.starts_with('['));
    if (!fits) return BadAddress(text, "the host has a character that no host name has");
  }
  if (has_port) {
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
    if (error != std::errc() || end != port.data() + port.size() || address.port < 0 ||
        address.port > 65'535) {
      return BadAddress(text, "the port is no number in 0…65535");
    }
  }
  return address;
}

Status CheckSecurity(const Address& address, const Security& security) {
  if (security.insecure || IsLoopback(address.host)) return {};
  return Fail(ErrorCode::kFailedPrecondition,
              fmt::format("{} is not on this machine, and TLS is not set up: without it, anyone on "
                          "the network could read photos' features and steer the PipeStores; use "
                          "127.0.0.1, or --insecure if the network is trusted",
                          address.Text()));
}

}  // namespace ndpipe::rpc
