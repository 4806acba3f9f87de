// A local photo store: a folder with photos, their catalog, and everything derived from them.
//
//   DIR/catalog.db    photos, locations, source labels, change log (SQLite, WAL)
//   DIR/photos/       photos that were copied in, ab/abcdef….jpg by id; never changed
//   DIR/downloads/    archives that an importer fetched; may be deleted at any time
//   DIR/derived/      sidecars and features (derived/derived_store.h); may be deleted at any time
//   DIR/models/       backbones and tails fetched from the Tuner; may be deleted at any time
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ndpipe/base/file.h"
#include "ndpipe/photo/catalog.h"

namespace ndpipe::photo {

// Photos larger than this are recorded as failed, not read.
inline constexpr size_t kMaxPhotoBytes = size_t{256} << 20;

// Where the extraction pipeline gets photos from. Implementations are thread-safe.
class PhotoSource {
 public:
  virtual ~PhotoSource() = default;
  // The bytes of the photo's file, checked against its id. kNotFound when it has no readable
  // location now; kDataLoss when the bytes are no longer those of its id; kResourceExhausted beyond
  // kMaxPhotoBytes.
  virtual Result<std::vector<uint8_t>> Read(int64_t number) = 0;
};

// Owns a connection to the catalog; thread-safe (one mutex around the catalog; file reads are
// outside it).
class PhotoStore : public PhotoSource {
 public:
  // Creates folder and catalog when absent. kPermissionDenied, kFailedPrecondition (newer schema),
  // kResourceExhausted.
  static Result<std::unique_ptr<PhotoStore>> Open(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }
  const std::string& store_id() const { return store_id_; }
  std::filesystem::path derived_folder() const { return folder_ / "derived"; }
  std::filesystem::path models_folder() const { return folder_ / "models"; }

  // Tries the photo's locations in turn. One that is found gone or with other bytes becomes missing
  // or changed in the catalog.
  Result<std::vector<uint8_t>> Read(int64_t number) override;

  // Catalog::Delete, and the photo's copies in photos/ are removed; files left in place stay. The
  // tombstone is durable first: what a crash leaves between goes when the store is opened next.
  // kNotFound. Any other error of the removal: the photo is deleted, its copy is tried again then.
  Status Delete(int64_t number);

  // Runs `use` with the catalog under the store's mutex.
  template <typename Use>
  auto WithCatalog(Use&& use) {
    std::lock_guard lock(mutex_);
    return use(catalog_);
  }

  // Copies the bytes into photos/ under their id (durably, unless already there) and returns the
  // location's path, relative to the folder. Not yet in the catalog: the caller batches
  // Catalog::Add. extension: ".jpg", with its dot; lower-case letters and digits, or empty.
  Result<std::string> CopyIn(std::span<const uint8_t> bytes, const PhotoId& id,
                             std::string_view extension);

  // CopyIn for many photos: nothing is durable until SyncCopies() has returned, and the catalog
  // must not learn of a copy before. Any number of threads may copy at once.
  Result<std::string> CopyInUnsynced(std::span<const uint8_t> bytes, const PhotoId& id,
                                     std::string_view extension);
  Status SyncCopies();

 private:
  PhotoStore(std::filesystem::path folder, Catalog catalog, FileDescriptor folder_fd);
  Result<std::vector<uint8_t>> ReadLocation(const Catalog::Location& location);
  Status SettleRemovals();
  Status CopyTo(std::span<const uint8_t> bytes, const std::string& path);

  std::filesystem::path folder_;
  std::string store_id_;
  FileDescriptor folder_fd_;  // for syncing the file system that the copies lie on
  std::mutex mutex_;
  Catalog catalog_;  // guarded by mutex_
};

}  // namespace ndpipe::photo
