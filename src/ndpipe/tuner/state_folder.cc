#include "ndpipe/tuner/state_folder.h"

#include <fmt/format.h>

#include <random>

#include "ndpipe/base/bytes.h"

namespace ndpipe::tuner {
namespace {

constexpr size_t kClusterIdDigits = 32;

std::string MakeClusterId() {
  std::random_device random;
  std::string id;
  for (int i = 0; i < 4; ++i) id += fmt::format("{:08x}", static_cast<uint32_t>(random()));
  return id;
}

Result<std::string> ReadOrMakeClusterId(const std::filesystem::path& file) {
  auto bytes = ReadFile(file, 1024);
  if (!bytes && bytes.error().code == ErrorCode::kNotFound) {
    std::string id = MakeClusterId();
    NDP_RETURN_IF_ERROR(WriteFileDurably(file, id));
    return id;
  }
  if (!bytes) return std::unexpected(std::move(bytes).error());
  std::string id(AsText(*bytes));
  if (id.size() != kClusterIdDigits || id.find_first_not_of("0123456789abcdef") != id.npos) {
    return Fail(ErrorCode::kDataLoss, file.string() +
                                          " does not hold a cluster id: restore it from"
                                          " a backup of the state folder");
  }
  return id;
}

// What is on its way when the Tuner is killed is sent again.
Status MakeEmptyFolder(const std::filesystem::path& folder) {
  std::error_code ignored;  // what stays costs room only
  std::filesystem::remove_all(folder, ignored);
  return MakeFolders(folder);
}

}  // namespace

StateFolder::StateFolder(std::filesystem::path folder, FileLock lock, std::string cluster_id)
    : folder_(std::move(folder)), lock_(std::move(lock)), cluster_id_(std::move(cluster_id)) {}

Result<StateFolder> StateFolder::Open(const std::filesystem::path& folder) {
  NDP_RETURN_IF_ERROR(MakeFolders(folder));
  NDP_ASSIGN(auto lock,
             FileLock::Acquire(folder / "lock",
                               fmt::format("another Tuner runs on the state folder {}: stop it, or "
                                           "give this one its own --state",
                                           folder.string())));
  NDP_ASSIGN(auto cluster_id, ReadOrMakeClusterId(folder / "cluster-id"));
  NDP_RETURN_IF_ERROR(MakeFolders(folder / "tails"));
  NDP_RETURN_IF_ERROR(MakeFolders(folder / "jobs"));
  NDP_RETURN_IF_ERROR(MakeEmptyFolder(folder / "incoming"));
  RemoveUnfinished(folder);
  RemoveUnfinished(folder / "tails");
  return StateFolder(folder, std::move(lock), std::move(cluster_id));
}

}  // namespace ndpipe::tuner
