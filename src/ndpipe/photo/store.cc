#include "ndpipe/photo/store.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <utility>

#include "ndpipe/base/log.h"
#include "ndpipe/photo/location_path.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPhotosFolder = "photos";
// Copies grow here and are renamed to their place when whole. What a killed import leaves behind is
// swept once it is old enough to be nobody's.
constexpr std::string_view kIncomingFolder = "photos/.incoming";
constexpr auto kStaleAfter = std::chrono::hours(24);

void SweepIncoming(const fs::path& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    std::error_code ignored;  // another process may sweep at the same time
    const auto age = fs::file_time_type::clock::now() - entry.last_write_time(ignored);
    if (!ignored && age > kStaleAfter) fs::remove(entry.path(), ignored);
  }
}

Status CheckExtension(std::string_view extension) {
  const auto is_plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  const bool fits =
      extension.empty() || (extension.front() == '.' && extension.size() <= 8 &&
                            std::all_of(extension.begin() + 1, extension.end(), is_plain));
  if (fits) return {};
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("'{}' is no file extension of a photo", EscapeBytes(extension)));
}

bool HoldsBytes(const fs::path& path, std::span<const uint8_t> bytes) {
  std::error_code error;
  if (fs::file_size(path, error) != bytes.size() || error) return false;
  const auto there = ReadFile(path, bytes.size());
  return there && std::ranges::equal(*there, bytes);
}

Status WriteAll(const fs::path& path, std::span<const uint8_t> bytes) {
  FileDescriptor fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd.valid()) return FailErrno("cannot create " + path.string(), errno);
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd.get(), bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FailErrno("cannot write " + path.string(), errno);
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return {};
}

std::string CopyPath(const PhotoId& id, std::string_view extension) {
  const std::string hex = id.Hex();
  return fmt::format("{}/{}/{}{}", kPhotosFolder, hex.substr(0, 2), hex, extension);
}

}  // namespace

PhotoStore::PhotoStore(fs::path folder, Catalog catalog, FileDescriptor folder_fd)
    : folder_(std::move(folder)),
      store_id_(catalog.store_id()),
      folder_fd_(std::move(folder_fd)),
      catalog_(std::move(catalog)) {}

Result<std::unique_ptr<PhotoStore>> PhotoStore::Open(const fs::path& folder) {
  std::error_code error;
  fs::path absolute = fs::absolute(folder, error).lexically_normal();
  if (error) return FailErrno("cannot find " + folder.string(), error.value());
  NDP_RETURN_IF_ERROR(MakeFolders(absolute / kIncomingFolder));
  SweepIncoming(absolute / kIncomingFolder);
  // The photos' own file system counts: photos/ may be a mount or a link.
  const fs::path photos = absolute / kPhotosFolder;
  FileDescriptor fd(::open(photos.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return FailErrno("cannot open folder " + photos.string(), errno);
  NDP_ASSIGN(auto catalog, Catalog::Open(absolute / "catalog.db"));
  std::unique_ptr<PhotoStore> store(
      new PhotoStore(std::move(absolute), std::move(catalog), std::move(fd)));
  // What a deletion that was killed has left. A copy that cannot go now goes at another time.
  const Status settled = store->SettleRemovals();
  if (!settled) spdlog::warn("a deleted photo's copy is still there: {}", settled.error().message);
  return store;
}

Status PhotoStore::SettleRemovals() {
  return WithCatalog([&](Catalog& catalog) {
    return catalog.SettleRemovals([&](const std::string& path) -> Status {
      NDP_ASSIGN(const fs::path file, ResolveLocation(folder_, path));
      if (::unlink(file.c_str()) != 0 && errno != ENOENT && errno != ENOTDIR) {
        return FailErrno("cannot remove the deleted photo's copy " + file.string(), errno);
      }
      std::error_code error;
      if (!fs::is_directory(file.parent_path(), error)) return {};
      return SyncFolder(file.parent_path());
    });
  });
}

Status PhotoStore::Delete(int64_t number) {
  NDP_RETURN_IF_ERROR(WithCatalog([&](Catalog& catalog) { return catalog.Delete(number); }));
  return SettleRemovals();
}

Result<std::vector<uint8_t>> PhotoStore::ReadLocation(const Catalog::Location& location) {
  NDP_ASSIGN(const fs::path file, ResolveLocation(folder_, location.path));
  auto bytes = ReadFile(file, kMaxPhotoBytes);
  if (!bytes) {
    if (bytes.error().code != ErrorCode::kNotFound) return bytes;
    // Another process may have said so already: then there is nothing to record.
    (void)WithCatalog([&](Catalog& catalog) { return catalog.MarkMissing(location.path); });
    return bytes;
  }
  if (Sha256::Of(*bytes) == location.id) return bytes;
  (void)WithCatalog([&](Catalog& catalog) { return catalog.MarkChanged(location.path); });
  return Fail(ErrorCode::kDataLoss,
              file.string() +
                  " no longer holds the bytes of its photo: import it again, or put a "
                  "copy of the original back");
}

Result<std::vector<uint8_t>> PhotoStore::Read(int64_t number) {
  NDP_ASSIGN(const auto locations,
             WithCatalog([&](Catalog& catalog) { return catalog.Locations(number); }));
  Error last{ErrorCode::kNotFound,
             fmt::format("photo {} has no present location in {}", number, folder_.string())};
  for (const Catalog::Location& location : locations) {
    auto bytes = ReadLocation(location);
    if (bytes) return bytes;
    if (last.code == ErrorCode::kDataLoss) continue;  // the gravest reason is the one to tell
    last = std::move(bytes).error();
    const bool may_tell =
        last.code == ErrorCode::kDataLoss || last.code == ErrorCode::kResourceExhausted;
    if (!may_tell) last.code = ErrorCode::kNotFound;
  }
  return std::unexpected(std::move(last));
}

// Writes beside photos/ and renames: nobody ever sees a part of a photo under its final name.
Status PhotoStore::CopyTo(std::span<const uint8_t> bytes, const std::string& path) {
  static std::atomic<uint64_t> counter{0};
  const fs::path temporary =
      folder_ / kIncomingFolder / fmt::format("{}-{}", ::getpid(), counter++);
  const fs::path target = folder_ / path;
  NDP_RETURN_IF_ERROR(MakeFolders(target.parent_path()));
  Status written = WriteAll(temporary, bytes);
  if (written && ::rename(temporary.c_str(), target.c_str()) != 0) {
    written = FailErrno("cannot write " + target.string(), errno);
  }
  if (!written) ::unlink(temporary.c_str());
  return written;
}

Result<std::string> PhotoStore::CopyInUnsynced(std::span<const uint8_t> bytes, const PhotoId& id,
                                               std::string_view extension) {
  NDP_RETURN_IF_ERROR(CheckExtension(extension));
  std::string path = CopyPath(id, extension);
  // A copy that a crash or a bad disk has damaged is replaced, hence the look at its bytes.
  if (HoldsBytes(folder_ / path, bytes)) return path;
  NDP_RETURN_IF_ERROR(CopyTo(bytes, path));
  return path;
}

Status PhotoStore::SyncCopies() {
  // One sync for a batch costs about as much as for a single photo.
  if (::syncfs(folder_fd_.get()) != 0) {
    return FailErrno("cannot sync the copies in " + folder_.string(), errno);
  }
  return {};
}

Result<std::string> PhotoStore::CopyIn(std::span<const uint8_t> bytes, const PhotoId& id,
                                       std::string_view extension) {
  NDP_RETURN_IF_ERROR(CheckExtension(extension));
  std::string path = CopyPath(id, extension);
  const fs::path target = folder_ / path;
  if (HoldsBytes(target, bytes)) {
    // Somebody's unsynced copy perhaps.
    FileDescriptor fd(::open(target.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd.valid() && ::fsync(fd.get()) == 0) {
      NDP_RETURN_IF_ERROR(SyncFolder(target.parent_path()));
      return path;
    }
  }
  NDP_RETURN_IF_ERROR(MakeFolders(target.parent_path()));
  NDP_RETURN_IF_ERROR(SyncFolder(folder_ / kPhotosFolder));
  NDP_RETURN_IF_ERROR(WriteFileDurably(target, bytes));
  return path;
}

}  // namespace ndpipe::photo
