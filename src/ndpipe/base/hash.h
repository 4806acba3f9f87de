// SHA-256 for identity, CRC-32 for damage.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "ndpipe/base/result.h"

namespace ndpipe {

// A SHA-256 digest. Ordered by its bytes.
struct Hash256 {
  std::array<uint8_t, 32> bytes{};

  auto operator<=>(const Hash256&) const = default;

  std::string Hex() const;    // 64 lower-case digits
  uint64_t Prefix64() const;  // the first 8 bytes, big-endian: uniform, for slicing by id
  static Result<Hash256> FromHex(std::string_view hex);  // kInvalidArgument unless 64 hex digits
  static Result<Hash256> FromBytes(
      std::span<const uint8_t> raw);  // kInvalidArgument unless 32 bytes
};

// Incremental SHA-256. One thread at a time. Finish() may be called once.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void Update(std::span<const uint8_t> bytes);
  Hash256 Finish();

  static Hash256 Of(std::span<const uint8_t> bytes);
  static Hash256 Of(std::string_view text);
  static Result<Hash256> OfFile(const std::filesystem::path& path);  // reads in pieces of 1 MiB

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

// CRC-32 (ISO-HDLC, the one of zip and PNG). `seed` is the CRC of what came before, 0 at the start.
uint32_t Crc32(std::span<const uint8_t> bytes, uint32_t seed = 0);

}  // namespace ndpipe

template <>
struct std::hash<ndpipe::Hash256> {
  size_t operator()(const ndpipe::Hash256& hash) const noexcept { return hash.Prefix64(); }
};
