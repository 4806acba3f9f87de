#include "ndpipe/pipestore/purger.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <optional>
#include <thread>

namespace ndpipe::pipestore {
namespace {

constexpr char kSpace[] = "feature/test";

class PurgerTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) /
              ("ndpipe-purger-" + std::to_string(::getpid()) + "-" + test->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    derived_ = photo::DerivedStore::Open(folder_ / "derived").value();
    catalog_.emplace(OpenCatalog());
    for (int i = 0; i < 3; ++i) {
      const photo::NewPhoto photo{.id = Sha256::Of("photo " + std::to_string(i)),
                                  .path = std::to_string(i) + ".jpg"};
      numbers_.push_back(catalog_->Add(std::span(&photo, 1))->at(0).number);
      Put(numbers_.back());
    }
    Start();
  }
  void TearDown() override {
    purger_.reset();
    derived_.reset();
    std::filesystem::remove_all(folder_);
  }

  photo::Catalog OpenCatalog() { return photo::Catalog::Open(folder_ / "catalog.db").value(); }
  void Start() {
    purger_.reset();
    purger_ = std::make_unique<Purger>(OpenCatalog(), *derived_, folder_ / "derived");
  }
  void Put(int64_t number) {
    const std::vector<uint8_t> bytes(10, 7);
    const photo::DerivedStore::Item item{.number = number, .bytes = bytes};
    ASSERT_TRUE(derived_->Put(kSpace, std::span(&item, 1)));
  }
  bool IsThere(int64_t number) { return derived_->Get(kSpace, number)->has_value(); }
  int64_t Mark() {
    int64_t mark = 0;
    std::ifstream(folder_ / "derived" / "purged-up-to") >> mark;
    return mark;
  }
  template <typename Condition>
  static bool Eventually(Condition&& condition) {
    for (int i = 0; i < 3000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  std::filesystem::path folder_;
  std::unique_ptr<photo::DerivedStore> derived_;
  std::optional<photo::Catalog> catalog_;
  std::vector<int64_t> numbers_;
  std::unique_ptr<Purger> purger_;
};

TEST_F(PurgerTest, PurgesDeletedPhotosOnly) {
  ASSERT_TRUE(catalog_->Delete(numbers_[1]));
  EXPECT_TRUE(Eventually([&] { return Mark() == *catalog_->LastChange(); }));
  EXPECT_FALSE(IsThere(numbers_[1]));
  EXPECT_TRUE(IsThere(numbers_[0]));
  EXPECT_TRUE(IsThere(numbers_[2]));
}

TEST_F(PurgerTest, WhatAnAssignmentWritesOfADeletedPhotoGoesAfterItsEnd) {
  purger_->AssignmentBegins();
  ASSERT_TRUE(catalog_->Delete(numbers_[1]));
  ASSERT_TRUE(Eventually([&] { return !IsThere(numbers_[1]); }));
  Put(numbers_[1]);  // it had the photo in hand
  purger_->AssignmentEnded();
  purger_->AssignmentBegins();  // the next one follows at once
  EXPECT_TRUE(Eventually([&] { return !IsThere(numbers_[1]); }));
  EXPECT_TRUE(Eventually([&] { return Mark() == *catalog_->LastChange(); }));
}

// A daemon that is killed in an assignment has told nobody that the assignment ended.
TEST_F(PurgerTest, WhatAKilledDaemonWroteOfADeletedPhotoGoesAtTheNextStart) {
  ASSERT_TRUE(Eventually([&] { return Mark() == *catalog_->LastChange(); }));
  purger_->AssignmentBegins();
  ASSERT_TRUE(catalog_->Delete(numbers_[1]));
  ASSERT_TRUE(Eventually([&] { return !IsThere(numbers_[1]); }));
  Put(numbers_[1]);
  Start();
  EXPECT_TRUE(Eventually([&] { return !IsThere(numbers_[1]); }));
}

}  // namespace
}  // namespace ndpipe::pipestore
