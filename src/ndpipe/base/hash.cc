#include "ndpipe/base/hash.h"

#include <libdeflate.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <vector>

namespace ndpipe {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string Hash256::Hex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(64);
  for (uint8_t byte : bytes) {
    hex.push_back(kDigits[byte >> 4]);
    hex.push_back(kDigits[byte & 15]);
  }
  return hex;
}

uint64_t Hash256::Prefix64() const {
  uint64_t prefix = 0;
  for (int i = 0; i < 8; ++i) prefix = prefix << 8 | bytes[i];
  return prefix;
}

Result<Hash256> Hash256::FromHex(std::string_view hex) {
  if (hex.size() != 64) {
    return Fail(ErrorCode::kInvalidArgument, "a SHA-256 has 64 hex digits, this text has " +
                                                 std::to_string(hex.size()) + " characters");
  }
  Hash256 hash;
  for (size_t i = 0; i < 32; ++i) {
    const int high = HexDigit(hex[2 * i]);
    const int low = HexDigit(hex[2 * i + 1]);
    if (high < 0 || low < 0) {
      return Fail(ErrorCode::kInvalidArgument, "a SHA-256 consists of hex digits only");
    }
    hash.bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return hash;
}

Result<Hash256> Hash256::FromBytes(std::span<const uint8_t> raw) {
  if (raw.size() != 32) {
    return Fail(ErrorCode::kInvalidArgument,
                "a SHA-256 has 32 bytes, not " + std::to_string(raw.size()));
  }
  Hash256 hash;
  std::copy(raw.begin(), raw.end(), hash.bytes.begin());
  return hash;
}

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(evp); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  NDP_CHECK(EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() = default;

void Sha256::Update(std::span<const uint8_t> bytes) {
  NDP_CHECK(EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) == 1);
}

Hash256 Sha256::Finish() {
  Hash256 hash;
  unsigned size = 0;
  NDP_CHECK(EVP_DigestFinal_ex(context_->evp, hash.bytes.data(), &size) == 1 && size == 32);
  return hash;
}

Hash256 Sha256::Of(std::span<const uint8_t> bytes) {
  Sha256 sha;
  sha.Update(bytes);
  return sha.Finish();
}

Hash256 Sha256::Of(std::string_view text) {
  return Of({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

Result<Hash256> Sha256::OfFile(const std::filesystem::path& path) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
  if (!file) return FailErrno("cannot open " + path.string(), errno);
  std::vector<uint8_t> buffer(1 << 20);
  Sha256 sha;
  size_t count = 0;
  while ((count = std::fread(buffer.data(), 1, buffer.size(), file.get())) > 0) {
    sha.Update({buffer.data(), count});
  }
  if (std::ferror(file.get()) != 0) return FailErrno("cannot read " + path.string(), errno);
  return sha.Finish();
}

uint32_t Crc32(std::span<const uint8_t> bytes, uint32_t seed) {
  if (bytes.empty()) return seed;  // the library takes a null pointer for a start
  return libdeflate_crc32(seed, bytes.data(), bytes.size());
}

}  // namespace ndpipe
