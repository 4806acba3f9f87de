#include "ndpipe/pipestore/tail_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "ndpipe/base/file.h"
#include "ndpipe/base/log.h"
#include "ndpipe/model/delta.h"

namespace ndpipe::pipestore {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxTailBytes = (size_t{1} << 30) + (size_t{64} << 20);  // values and header
constexpr std::string_view kExtension = ".safetensors";

std::optional<Hash256> ParseName(const fs::path& path) {
  if (path.extension() != kExtension) return std::nullopt;
  const auto hash = Hash256::FromHex(path.stem().string());
  if (!hash) return std::nullopt;
  return *hash;
}

// The call was ended or the Tuner is away: asking otherwise would not help.
bool EndsFetching(const Error& error) {
  return error.code == ErrorCode::kCancelled || error.code == ErrorCode::kUnavailable;
}

}  // namespace

Result<TailFiles> TailFiles::Open(const fs::path& folder) {
  NDP_RETURN_IF_ERROR(MakeFolders(folder));
  RemoveUnfinished(folder);
  return TailFiles(folder);
}

fs::path TailFiles::FileOf(const Hash256& tail) const {
  return folder_ / (tail.Hex() + std::string(kExtension));
}

std::vector<Hash256> TailFiles::Held() const {
  std::vector<std::pair<fs::file_time_type, Hash256>> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    std::error_code unreadable;
    const auto time = entry.last_write_time(unreadable);
    if (const auto hash = ParseName(entry.path()); hash && !unreadable) {
      found.emplace_back(time, *hash);
    }
  }
  std::ranges::sort(found, std::ranges::greater());
  std::vector<Hash256> held;
  for (const auto& [time, hash] : found) held.push_back(hash);
  return held;
}

void TailFiles::Used(const Hash256& tail) {
  std::error_code ignored;  // it is only the order in which files are dropped
  fs::last_write_time(FileOf(tail), fs::file_time_type::clock::now(), ignored);
  auto held = Held();
  std::erase(held, tail);
  for (size_t i = kMaxFiles - 1; i < held.size(); ++i) fs::remove(FileOf(held[i]), ignored);
}

Result<std::vector<uint8_t>> TailFiles::Read(const Hash256& tail) {
  NDP_ASSIGN(auto bytes, ReadFile(FileOf(tail), kMaxTailBytes));
  if (Sha256::Of(bytes) == tail) return bytes;
  std::error_code ignored;
  fs::remove(FileOf(tail), ignored);
  return Fail(ErrorCode::kDataLoss, fmt::format("{} was damaged: its SHA-256 differs from its name",
                                                FileOf(tail).string()));
}

Result<std::vector<uint8_t>> TailFiles::Assemble(const Hash256& tail,
                                                 const std::vector<Hash256>& held,
                                                 rpc::StoreLinkClient& tuner,
                                                 const std::stop_token& stop) {
  NDP_ASSIGN(const auto parts, tuner.FetchTail(tail, held, stop));
  model::Weights weights;
  if (parts.base != Hash256{}) {
    NDP_ASSIGN(const auto bytes, Read(parts.base));
    NDP_ASSIGN(const auto base, model::ParseTail(bytes));
    weights = model::WeightsOf(base);
  }
  size_t num_bytes = 0;
  for (const auto& delta : parts.deltas) {
    num_bytes += delta.size();
    NDP_ASSIGN(weights, model::ApplyDelta(&weights, delta));
  }
  auto bytes = model::SerializeWeights(weights);
  if (Sha256::Of(bytes) != tail) {
    return Fail(ErrorCode::kDataLoss, "the deltas from the Tuner lead to another tail");
  }
  spdlog::info("tail {}: {} bytes in {} deltas{}, for {} bytes", tail.Hex().substr(0, 12),
               num_bytes, parts.deltas.size(),
               parts.base == Hash256{} ? "" : " from " + parts.base.Hex().substr(0, 12),
               bytes.size());
  return bytes;
}

Status TailFiles::Fetch(const Hash256& tail, rpc::StoreLinkClient& tuner,
                        const std::stop_token& stop) {
  auto bytes = Assemble(tail, Held(), tuner, stop);
  // A base that is damaged here, or a delta that is damaged there: the full tail needs neither.
  if (!bytes && !EndsFetching(bytes.error()) && bytes.error().code != ErrorCode::kUnimplemented) {
    spdlog::warn("tail {}: {}; asking for all of it", tail.Hex().substr(0, 12),
                 bytes.error().message);
    bytes = Assemble(tail, {}, tuner, stop);
  }
  if (bytes) return WriteFileDurably(FileOf(tail), *bytes);
  if (EndsFetching(bytes.error())) return std::unexpected(std::move(bytes).error());
  spdlog::warn("tail {}: {}; asking for its file", tail.Hex().substr(0, 12), bytes.error().message);
  return tuner.FetchFile(rpc::FileKind::kTail, tail, FileOf(tail), stop);
}

Result<model::TailWeights> TailFiles::Load(const Hash256& tail, rpc::StoreLinkClient& tuner,
                                           const std::stop_token& stop) {
  auto bytes = Read(tail);
  if (!bytes) {
    if (bytes.error().code == ErrorCode::kDataLoss) spdlog::warn("{}", bytes.error().message);
    NDP_RETURN_IF_ERROR(Fetch(tail, tuner, stop));
    NDP_ASSIGN(bytes, Read(tail));
  }
  Used(tail);
  return model::ParseTail(*bytes);
}

}  // namespace ndpipe::pipestore
